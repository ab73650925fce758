"""What only a GPU can show, measured within minutes; each part also runs on CPUs, in miniature."""

"""What you submit: each module parses a config, calls one pipeline and reports."""

"""What annotations say, a reader for each format; all of them give `Annotations`."""

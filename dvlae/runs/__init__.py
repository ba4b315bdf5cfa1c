"""What a run leaves on disk, read back."""

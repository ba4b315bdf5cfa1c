"""Every setting: its name, type, default and meaning, read from files and checked."""

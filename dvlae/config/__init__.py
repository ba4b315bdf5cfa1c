"""Settings: their names, types, defaults and meanings, and how they are read from files and checked."""

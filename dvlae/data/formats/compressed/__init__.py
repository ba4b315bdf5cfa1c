"""What compressed pixels say of themselves before they are decompressed."""

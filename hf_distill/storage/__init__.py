"""What reaches the disk: files that are whole or not there."""

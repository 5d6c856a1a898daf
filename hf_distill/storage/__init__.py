"""What reaches the disk: whole files, finished steps, folders of one run at a time."""

"""What every package stands on: files, digests, locks, hardware, the process and the terminal. No torch here."""

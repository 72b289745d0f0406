"""What is measured once the program has ended, while its objects are still alive."""

"""Vector search systems behind one interface, each measured in a process of its own."""

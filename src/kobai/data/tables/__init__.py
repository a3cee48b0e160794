"""Tables: how they are read, what their columns are, and how they become the inputs of a net."""

"""How results are printed for people, and in which language."""

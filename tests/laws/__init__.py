"""The laws that every member of a kind obeys, and the cases on which they are tested."""

"""A benchmark's figures as one page that a person can show to a colleague."""

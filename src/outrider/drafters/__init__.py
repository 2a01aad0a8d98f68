"""Sources of drafts: the protocol, the token tree that they share, and one file per kind."""

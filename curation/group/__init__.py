"""Groups of objects that show one subject: tracks, folders, identities, looks."""

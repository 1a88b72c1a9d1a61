"""Everything that reads the journal: state, audit, replay."""

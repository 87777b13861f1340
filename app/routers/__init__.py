"""HTTP: signatures that say who, what and on which row; three hops, top down."""

//! Everything of sipbox that can block: sockets, files, databases, clocks.

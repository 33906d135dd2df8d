"""One machine with everything on it: embedded servers, and the supervisor behind `bakeoff up`."""

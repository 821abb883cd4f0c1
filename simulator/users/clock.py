"""The clock of real users: who came when, with how many requests of which size, taken from a log. No answers live here."""

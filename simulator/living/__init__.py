"""A catalogue that lives: items are uploaded, age and go; creators whom nobody sees stop."""

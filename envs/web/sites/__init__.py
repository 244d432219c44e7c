"""Small sites with generated data: a shop, a forum, a wiki, mail and a calendar."""

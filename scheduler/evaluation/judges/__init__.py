"""What judges are worth: pairs with a known better answer, and the choice among several models' answers."""

"""One program, several engines, one table: entries → sizes within a budget → runs → measures → a comparison."""

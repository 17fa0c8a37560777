"""What people see: findings, tables and draws, as text. Knows results and nothing of how they came about."""

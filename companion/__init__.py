"""What makes the book of the two papers: studies, evidence and verdicts, figures, pages."""

"""What is said as JSON: the document's forms, and the original client's."""

"""What several test files share: small files in published layouts, and looks at what a command has done."""

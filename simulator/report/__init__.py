"""The significance report: terminal, report.json, report.md, report.html."""

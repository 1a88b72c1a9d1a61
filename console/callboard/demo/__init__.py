"""`callboard demo`: several agents review a real Python source tree at once, and a join reports.

`planning` chooses the files; one specialist each (`structure`, `documentation`, `defects`,
`secrets`, `security`, `imports`) reads one file's text and answers with a `FileReview`; `report`
joins the reviews and writes Markdown. All of it is pure functions of the text: the same tree gives
the same findings, on any host, in any order. Nothing under review is ever imported or run.
"""

# {"text": "..."}: how many words the text has. An exit code but 0 is a failure of the task.
match($0, /"text": *"[^"]*"/) {
    found = 1
    text = substr($0, RSTART + 7, RLENGTH - 8)
    sub(/^[: "]*/, "", text)
    printf "{\"words\": %d}\n", split(text, words, /[[:space:]]+/)
}
END {
    if (!found) {
        print "the payload has no text" > "/dev/stderr"
        exit 2
    }
}

# The payload is on standard input, the result goes to standard output. Both are JSON.
echo "task $CALLBOARD_TASK of $CALLBOARD_TENANT" >&2 # standard error is logged
echo '::progress {"read": 0}' >&2                    # and this is the task's progress
tr '[:lower:]' '[:upper:]'

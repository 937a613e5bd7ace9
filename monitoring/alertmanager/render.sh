#!/bin/sh
# Writes alertmanager.yml from its template and the environment, then runs what follows:
#
#   render.sh [OUTPUT [COMMAND...]]        output: /tmp/alertmanager.yml by default
#
# Mail, where VQE_ALERT_MAIL_TO is set:
#   VQE_ALERT_MAIL_TO         addresses, comma-separated
#   VQE_SMTP_HOST             host:port (required with mail)
#   VQE_SMTP_FROM             sender, vqe@localhost by default
#   VQE_SMTP_TLS              true (default) or false
#   VQE_SMTP_USER             and VQE_SMTP_PASSWORD_FILE or VQE_SMTP_PASSWORD
# Webhook:
#   VQE_ALERT_WEBHOOK_URL     or VQE_ALERT_WEBHOOK_URL_FILE: such an address is often a secret itself
# VQE_ALERT_GROUP_WAIT (30s), VQE_ALERT_GROUP_INTERVAL (5m)
#
# Secrets never stand in the output: given by value they go to files beside it that only this user reads.
set -eu
umask 077

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
output=${1:-/tmp/alertmanager.yml}
[ $# -eq 0 ] || shift
folder=$(dirname -- "$output")

fail() { echo "render.sh: $1" >&2; exit 2; }

# A value as a quoted YAML string; newlines are no part of any of these.
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"; }

# secret NAME: the path of the file that holds NAME, which is given as NAME_FILE or by value; empty where it is neither.
secret() {
    eval "file=\${$1_FILE:-} value=\${$1:-}"
    if [ -n "$file" ]; then
        [ -z "$value" ] || fail "give either $1 or $1_FILE"
        [ -r "$file" ] || fail "$1_FILE $file cannot be read"
        if [ -s "$file" ]; then printf %s "$file"; fi # empty: none was set
    elif [ -n "$value" ]; then
        printf %s "$value" > "$folder/$1"
        printf %s "$folder/$1"
    fi
}

MAIL=${VQE_ALERT_MAIL_TO:-}
SMTP_USER=''
[ -z "$MAIL" ] || SMTP_USER=${VQE_SMTP_USER:-}
SMTP_PASSWORD_FILE=$(secret VQE_SMTP_PASSWORD)
WEBHOOK_URL_FILE=$(secret VQE_ALERT_WEBHOOK_URL)
[ -z "$MAIL" ] || [ -n "${VQE_SMTP_HOST:-}" ] || fail "VQE_ALERT_MAIL_TO needs VQE_SMTP_HOST (host:port)"
[ -z "$SMTP_USER" ] || [ -n "$SMTP_PASSWORD_FILE" ] || fail "VQE_SMTP_USER needs VQE_SMTP_PASSWORD or VQE_SMTP_PASSWORD_FILE"
case ${VQE_SMTP_TLS:-true} in true | false) ;; *) fail "VQE_SMTP_TLS must be true or false" ;; esac
for time in "${VQE_ALERT_GROUP_WAIT:-30s}" "${VQE_ALERT_GROUP_INTERVAL:-5m}"; do
    case $time in *[!0-9smh]* | '') fail "$time is no time, like 30s or 5m" ;; esac
done

export MAIL SMTP_USER WEBHOOK_URL_FILE
export SMTP_SMARTHOST="$(quoted "${VQE_SMTP_HOST:-}")" SMTP_FROM="$(quoted "${VQE_SMTP_FROM:-vqe@localhost}")"
export SMTP_TLS="${VQE_SMTP_TLS:-true}" SMTP_USER_TEXT="$(quoted "$SMTP_USER")" MAIL_TO="$(quoted "$MAIL")"
export SMTP_PASSWORD_FILE GROUP_WAIT="${VQE_ALERT_GROUP_WAIT:-30s}" GROUP_INTERVAL="${VQE_ALERT_GROUP_INTERVAL:-5m}"

# Shell only: the image has busybox at most.
shown=1 depth=0 hidden_at=0
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
        '# Made into'*) continue ;;
        '#if '*)
            depth=$((depth + 1))
            eval "value=\${${line#\#if }:-}"
            if [ $shown -eq 1 ] && [ -z "$value" ]; then shown=0 hidden_at=$depth; fi
            continue
            ;;
        '#end')
            if [ $shown -eq 0 ] && [ $depth -eq $hidden_at ]; then shown=1; fi
            depth=$((depth - 1))
            continue
            ;;
    esac
    [ $shown -eq 1 ] || continue
    case $line in
        *@*@*)
            name=${line#*@} name=${name%%@*}
            case $name in
                SMTP_USER) value=$SMTP_USER_TEXT ;;
                *_FILE) eval "value=\$(quoted \"\$$name\")" ;;
                *) eval "value=\$$name" ;;
            esac
            line=${line%%@*}$value${line#*@*@}
            ;;
    esac
    printf '%s\n' "$line"
done < "$here/alertmanager.yml.in" > "$output"

[ $# -eq 0 ] || exec "$@"

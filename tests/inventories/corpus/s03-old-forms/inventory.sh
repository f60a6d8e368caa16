#!/bin/sh
echo "a note that is not an error" >&2
echo '{"gpu": ["g1", "g2"], "single": {"x": 1}, "_meta": {"hostvars": {}}}'

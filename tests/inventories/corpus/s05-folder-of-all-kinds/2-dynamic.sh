#!/bin/sh
echo '{"gpu": {"hosts": ["g1", "g2"]}, "_meta": {"hostvars": {"g1": {"x": "dynamic"}}}}'

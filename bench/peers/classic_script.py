"""What Resque's workers have always done between two jobs, as one script: pop and record."""

from forkresque.protocol.script import Script

SOURCE = """
-- KEYS record processed processed_by list*
-- ARGV done head label
if done == "1" then
  redis.call("INCR", processed)
  redis.call("INCR", processed_by)
end
local raw = redis.call("LPOP", KEYS[first_list])
if raw then
  redis.call("SET", record, head .. label .. ',"payload":' .. raw .. "}")
else
  redis.call("DEL", record)
end
return raw
"""

CLASSIC = Script("classic", SOURCE)

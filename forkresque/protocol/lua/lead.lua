-- Take or renew the lead, and with it the right to promote.
--
-- KEYS leader epoch foreign*
-- ARGV token term_ms foreign_term
--
--   leader    string  the forkresque scheduler that leads
--   epoch     string  counts changes of the lead
--   foreign*  string  the locks of node-resque's and Ruby's schedulers: all are ours, or we take none
--
-- A foreign lock without an end would stop everybody for ever; it gets `foreign_term` seconds.
-- Returns {LEAD, "1" with the right to promote, holder of a foreign lock or ""}, {FOLLOW, holder}. O(locks).
local current = redis.call("GET", leader)
if current and current ~= token then return {"FOLLOW", current} end
redis.call("PEXPIRE", leader, term_ms) -- any write opens the script to the rest when memory is full
redis.call("SET", leader, token, "PX", term_ms)
if not current then redis.pcall("INCR", epoch) end
local holder = ""
for i = first_foreign, #KEYS do
  local other = redis.pcall("GET", KEYS[i])
  if type(other) == "table" then other = KEYS[i] end -- of another type: nobody's, until it expires
  if other and other ~= token then
    holder = other
    if redis.call("TTL", KEYS[i]) == -1 then redis.call("EXPIRE", KEYS[i], foreign_term) end
  end
end
if holder ~= "" then return {"LEAD", "0", holder} end
for i = first_foreign, #KEYS do redis.call("SET", KEYS[i], token, "PX", term_ms) end
return {"LEAD", "1", ""}

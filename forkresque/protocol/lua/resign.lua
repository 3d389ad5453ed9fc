-- Give up every lock that is ours, so that the next leader need not wait.
--
-- KEYS lock*
-- ARGV token
--
-- Returns how many there were. O(locks).
local given = 0
for i = first_lock, #KEYS do
  if redis.pcall("GET", KEYS[i]) == token then given = given + redis.call("DEL", KEYS[i]) end
end
return given

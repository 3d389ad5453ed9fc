-- Remove one failure record.
--
-- USES read nearer
-- KEYS failed*
-- ARGV entry
--
--   failed*  list  where the record may be; it is taken from the first that has it
--   entry    the record's bytes, by which it is found; never its place, which moves
--
-- Returns {OK}, {MOVED} when it is gone, {BADKEY, key} with nothing changed. O(records), but soon
-- done with the newest and the oldest of them.
for i = first_failed, #KEYS do
  if not fits(KEYS[i], "list") then return {"BADKEY", KEYS[i]} end
end
for i = first_failed, #KEYS do
  if redis.call("LREM", KEYS[i], nearer_end(KEYS[i], entry), entry) > 0 then return {"OK"} end
end
return {"MOVED"}

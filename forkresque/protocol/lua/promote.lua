-- Promote the first jobs of a second that has come, while all scheduler locks are ours.
--
-- USES read fail
-- KEYS node_leader node_master ruby_master schedule bucket queues failures failed_lists target_and_timestamps*
-- ARGV token second payload_and_name_and_entry*
--
--   bucket    list        jobs due at `second`, oldest first
--   target_and_timestamps       for each job: where it goes, and the set of its seconds
--   payload_and_name_and_entry  for each job: its bytes as the caller read them, the name of its
--                               target, and "" or the failure record of a job that has no queue:
--                               the target is a failed list, then. See parts/fail.lua
--
-- A job moves only if it still is the bucket's head. Due is judged by Redis' clock.
-- Returns {OK, number moved, number left}, {FENCED}, {EARLY}, {BADKEY, key} with nothing moved,
-- {BADQUEUE, number moved, key} when the queue of the next job holds another type. Sending it again
-- is safe: at worst it moves an equal job that is due as well. O(jobs); at most 100 of them.
for i = 1, 3 do
  if redis.call("GET", KEYS[i]) ~= token then return {"FENCED"} end
end
if tonumber(second) > tonumber(redis.call("TIME")[1]) then return {"EARLY"} end
if not fits(bucket, "list") then return {"BADKEY", bucket} end
if not fits(schedule, "zset") then return {"BADKEY", schedule} end

local jobs = (#ARGV - first_payload_and_name_and_entry + 1) / 3
for i = 0, jobs - 1 do
  local at = first_payload_and_name_and_entry + 3 * i
  local name, entry = ARGV[at + 1], ARGV[at + 2]
  local target = KEYS[first_target_and_timestamps + 2 * i]
  local misfit = entry ~= "" and misfit_to_fail(target, name)
  if misfit then return {"BADKEY", misfit} end
end

local moved = 0
for i = 0, jobs - 1 do
  local at = first_payload_and_name_and_entry + 3 * i
  local payload, name, entry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local target = KEYS[first_target_and_timestamps + 2 * i]
  local timestamps = KEYS[first_target_and_timestamps + 2 * i + 1]
  if redis.call("LINDEX", bucket, 0) ~= payload then break end
  if entry == "" and not fits(target, "list") then return {"BADQUEUE", moved, target} end
  redis.call("LPOP", bucket) -- the first write frees memory, so a full Redis still promotes
  redis.pcall("SREM", timestamps, "delayed:" .. second)
  if entry == "" then
    redis.call("RPUSH", target, payload) -- the bytes as they came
    redis.pcall("SADD", queues, name)
  else
    fail(target, name, entry)
    redis.pcall("INCR", failures)
  end
  moved = moved + 1
end
local left = redis.call("LLEN", bucket)
if left == 0 then redis.call("ZREM", schedule, second) end
return {"OK", moved, left}

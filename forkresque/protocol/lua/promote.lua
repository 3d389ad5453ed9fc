-- Promote the first jobs of seconds that have come, while all scheduler locks are ours.
--
-- USES read fail
-- KEYS node_leader node_master ruby_master schedule queues failures failed_lists bucket_and_targets*
-- ARGV token second_and_count_and_jobs*
--
--   bucket_and_targets  for each second: the list of what is due then, oldest first; and for each
--                       of its jobs where it goes, and the set of its seconds
--   second_and_count_and_jobs  for each second: it, the number of its jobs, and for each of them
--                       three: its bytes as the caller read them, the name of its target, and "" or
--                       the failure record of a job that has no queue: the target is a failed list,
--                       then. See parts/fail.lua
--
-- A job moves only if it still is the bucket's head. Due is judged by Redis' clock. Seconds are taken
-- in their order, up to the first that cannot be done: nothing of it has moved, but for BADQUEUE.
-- Returns {OK, ""}, {FENCED}, {EARLY, ""}, {BADKEY, key}, or {BADQUEUE, key} when the queue of the
-- next job holds another type; and then number moved and number left of each second that was
-- looked at. Sending it again is safe: at worst it moves an equal job that is due as well.
-- O(jobs); at most 100 of them.
for i = 1, 3 do
  if redis.call("GET", KEYS[i]) ~= token then return {"FENCED"} end
end
local now = tonumber(redis.call("TIME")[1])
local answer, lists, spent = {"OK", ""}, {}, {}
local is_schedule = fits(schedule, "zset")

local function is_list(key) -- asked once: what this script pushes to stays one
  if lists[key] == nil then lists[key] = fits(key, "list") end
  return lists[key]
end

local function hindrance(second, bucket, heads, at, key, jobs)
  if tonumber(second) > now then return "EARLY", "" end
  if heads.err then return "BADKEY", bucket end
  if not is_schedule then return "BADKEY", schedule end
  for i = 0, jobs - 1 do
    local name, entry = ARGV[at + 3 * i + 1], ARGV[at + 3 * i + 2]
    local misfit = entry ~= "" and misfit_to_fail(KEYS[key + 2 * i], name)
    if misfit then return "BADKEY", misfit end
  end
end

local function movable(heads, at, key, jobs) -- how many, and the queue that stops the next one
  for i = 0, jobs - 1 do
    if heads[i + 1] ~= ARGV[at + 3 * i] then return i end
    local target = KEYS[key + 2 * i]
    if ARGV[at + 3 * i + 2] == "" and not is_list(target) then return i, target end
  end
  return jobs
end

local function move(second, payload, name, entry, target, timestamps)
  redis.pcall("SREM", timestamps, "delayed:" .. second)
  if entry == "" then
    redis.call("RPUSH", target, payload) -- the bytes as they came
    if lists[target] ~= name then
      redis.pcall("SADD", queues, name)
      lists[target] = name -- a list, whose name is known
    end
  else
    fail(target, name, entry)
    redis.pcall("INCR", failures)
  end
end

local at, key = first_second_and_count_and_jobs, first_bucket_and_targets
while at <= #ARGV do
  local second, jobs, bucket = ARGV[at], tonumber(ARGV[at + 1]), KEYS[key]
  at, key = at + 2, key + 1
  local heads = redis.pcall("LRANGE", bucket, 0, jobs) -- one more, to see if that is all
  if heads.err and not starts(heads.err, "WRONGTYPE") then return heads end
  local trouble, culprit = hindrance(second, bucket, heads, at, key, jobs)
  local moved = 0
  if not trouble then
    moved, culprit = movable(heads, at, key, jobs)
    if culprit then trouble = "BADQUEUE" end
    -- The first write frees memory, so a full Redis still promotes.
    if moved > 0 then redis.call("LPOP", bucket, moved) end
    for i = 0, moved - 1 do
      local job, target = at + 3 * i, key + 2 * i
      move(second, ARGV[job], ARGV[job + 1], ARGV[job + 2], KEYS[target], KEYS[target + 1])
    end
  end
  local left = #heads - moved
  if not trouble and #heads > jobs then left = redis.call("LLEN", bucket) end
  table.insert(answer, moved)
  table.insert(answer, left)
  if trouble then
    answer[1], answer[2] = trouble, culprit
    break
  end
  if left == 0 then table.insert(spent, second) end
  at, key = at + 3 * jobs, key + 2 * jobs
end
if #spent > 0 then redis.call("ZREM", schedule, unpack(spent)) end
return answer

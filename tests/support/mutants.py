"""Known bugs, each one edit of one file, to find out whether the suite would catch us.

They are seeded into a copy of the package, never into the checkout.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

FINISH = "tests/integration/test_finish.py"
CONTRACTS = "tests/integration/test_contracts.py"
SCRIPTS = "tests/integration/test_scripts.py"
RESENDS = "tests/integration/test_dropped_replies.py"
QUEUE = "tests/integration/test_queue.py"
BULK = "tests/integration/test_queue_bulk.py"
WAITING = "tests/integration/test_queue_waiting.py"
DELAYED = "tests/integration/test_queue_delayed.py"
FAILED_LISTS = "tests/integration/test_failed_lists.py"
SWEEP = "tests/integration/test_failed_sweep.py"
STAFF = "tests/integration/test_staff.py"
STUCK = "tests/integration/test_failed_stuck.py"
LOCKS = "tests/integration/test_queue_locks.py"
VERDICTS = "tests/unit/test_verdicts.py"
MASTERS = "tests/processes/test_master_death.py"
DRAIN = "tests/reliability/test_drain.py"
COPIED = ("forkresque", "tests", "pyproject.toml", "README.md")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: in `path` of the package, `old` becomes `new`; `caught_by` is a test file and words.

    The words are those of a test's name, as for `pytest -k`.
    """

    name: str
    path: str
    old: str
    new: str
    caught_by: tuple[str, str]

    def seed(self, root: Path) -> None:
        """Write the bug into the copy at `root`. The code it changes must be there, once."""
        place = root / "forkresque" / self.path
        text = place.read_text()
        assert text.count(self.old) == 1, f"{self.name}: {self.path} holds {self.old!r} not once"
        place.write_text(text.replace(self.old, self.new))


def copy(into: Path) -> None:
    """Copy package and tests into an empty folder."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(source, into / name, ignore=ignored)
        else:
            shutil.copy2(source, into / name)


def run_tests(root: Path, *selections: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the tests of `selections` in the copy at `root`, up to the first that fails."""
    files = list(dict.fromkeys(file for file, _ in selections))
    words = " or ".join(dict.fromkeys(f"({words})" for _, words in selections))
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-n0",
                "-x",
                "-q",
                "--tb=line",
                "-p",
                "no:cacheprovider",
            ),
            *("-k", words, *files),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


MUTANTS = [
    Mutant(
        "settle without a look at the token",
        "protocol/lua/settle.lua",
        'if not held or not starts(held, token .. "\\n") then',
        "if not held then",
        (SCRIPTS, "a_token_is_compared_at_full_length"),
    ),
    Mutant(
        "settle does not remember what it settled",
        "protocol/lua/settle.lua",
        '  redis.call("SET", last, token, "EX", 3600)\n',
        '  redis.call("DEL", last)\n',
        (CONTRACTS, "every_settle_is_told_once"),
    ),
    Mutant(
        "settle takes an unknown token for an old one",
        "protocol/lua/settle.lua",
        '  if done ~= token and (next == "" or done ~= "-" .. next) then return {"LOST"} end\n',
        '  if not done then return {"LOST"} end\n',
        (SCRIPTS, "a_settle_after_a_recovery_is_lost_and_changes_nothing"),
    ),
    Mutant(
        "settle leaves the job in the slot",
        "protocol/lua/settle.lua",
        '  redis.call("DEL", slot, record)\n',
        '  redis.call("DEL", record)\n',
        (CONTRACTS, "every_settle_is_told_once"),
    ),
    Mutant(
        "settle puts a released job at the tail",
        "protocol/lua/settle.lua",
        'outcome == "RELEASE" and "LPUSH" or "RPUSH"',
        'outcome == "NEVER" and "LPUSH" or "RPUSH"',
        (SCRIPTS, "the_last_job_is_settled_once"),
    ),
    Mutant(
        "settle counts a failure and keeps no record",
        "protocol/lua/settle.lua",
        "  fail(failed, failed_name, entry)\nelseif moves",
        '  redis.call("EXISTS", failed)\nelseif moves',
        (SCRIPTS, "the_last_job_is_settled_once"),
    ),
    Mutant(
        "settle forgets the schedule of a retry",
        "protocol/lua/settle.lua",
        '  redis.call("ZADD", schedule, second, second)\n',
        '  redis.call("EXISTS", schedule)\n',
        (SCRIPTS, "a_retry_stands_where_the_scheduler_looks"),
    ),
    Mutant(
        "settle counts a success twice",
        "protocol/lua/settle.lua",
        "  count(processed)\n",
        "  count(processed)\n  count(processed)\n",
        (SCRIPTS, "a_hindered_worker_still_settles_and_gets_no_next_job"),
    ),
    Mutant(
        "settle claims again when it is sent again",
        "protocol/lua/settle.lua",
        '  if held and next ~= "" and starts(held, next .. "\\n") then',
        '  if held and next ~= "" and starts(held, next .. "!") then',
        (SCRIPTS, "a_settle_brings_the_next_job_and_sent_again_the_same"),
    ),
    Mutant(
        "settle keeps the locks of its job",
        "protocol/lua/settle.lua",
        "if KEYS[locks] then unlock(KEYS[locks], locks + 1) end",
        'if KEYS[locks] then redis.call("DEL", KEYS[locks]) end',
        (CONTRACTS, "every_end_of_a_job_frees_its_locks"),
    ),
    Mutant(
        "done does not look at the token",
        "protocol/lua/done.lua",
        'if not held or string.sub(held, 1, #token + 1) ~= token .. "\\n" then return end',
        "if not held then return end",
        (FINISH, "whatever_is_unusual_is_left_to_settle"),
    ),
    Mutant(
        "done takes any four keys for a lease",
        "protocol/lua/done.lua",
        '"EXISTS", lease, lease, lease, lease, pause, paused, suspects) ~= 4',
        '"EXISTS", lease, lease, lease, lease, pause, paused, suspects) < 3',
        (FINISH, "whatever_is_unusual_is_left_to_settle"),
    ),
    Mutant(
        "done does not remember the last job it settled",
        "protocol/lua/done.lua",
        '  redis.call("SET", last, token, "EX", 3600)\n',
        "",
        (FINISH, "a_settle_that_follows_it_changes_nothing_and_brings_the_same"),
    ),
    Mutant(
        "done counts for all and not for the worker",
        "protocol/lua/done.lua",
        'redis.pcall("INCR", processed_by)',
        'redis.pcall("GET", processed_by)',
        (FINISH, "it_does_what_settle_does"),
    ),
    Mutant(
        "claim sent again finds the worker busy",
        "protocol/lua/claim.lua",
        '  if starts(held, token .. "\\n") then',
        '  if starts(held, token .. "!") then',
        (SCRIPTS, "a_claim_sent_again_brings_the_same_job_and_takes_no_other"),
    ),
    Mutant(
        "claim overwrites a job in hand",
        "protocol/lua/claim.lua",
        "if held then\n",
        "if held and starts(held, token) then\n",
        (SCRIPTS, "a_claim_with_another_token_is_busy_and_changes_nothing"),
    ),
    Mutant(
        "claim pops and keeps nothing in the slot",
        "protocol/lua/parts/take.lua",
        '        redis.call("SET", slot, token .. "\\n" .. #name .. "\\n" .. name .. raw)\n',
        '        redis.call("EXISTS", slot)\n',
        (CONTRACTS, "a_lock_is_written_so_that_node_resque_can_read_it"),
    ),
    Mutant(
        "claim leaves the job in its queue",
        "protocol/lua/parts/take.lua",
        'redis.pcall("LPOP", KEYS[first_list + i])',
        'redis.pcall("LINDEX", KEYS[first_list + i], 0)',
        (CONTRACTS, "a_job_that_a_foreign_tool_has_failed_is_not_brought_back_as_well"),
    ),
    Mutant(
        "claim without a lease",
        "protocol/lua/parts/take.lua",
        '  if there < 4 then return "ORPHAN" end\n',
        "",
        (SCRIPTS, "a_hindered_claim_takes_nothing"),
    ),
    Mutant(
        "claim by a worker that was removed",
        "protocol/lua/parts/take.lua",
        '  if redis.pcall("SISMEMBER", workers, worker) == 0 then return "UNREG" end\n',
        "",
        (SCRIPTS, "a_hindered_claim_takes_nothing"),
    ),
    Mutant(
        "claim does not care for a pause",
        "protocol/lua/parts/take.lua",
        '  if all_paused() then return "PAUSED" end\n',
        "",
        (SCRIPTS, "a_hindered_claim_takes_nothing"),
    ),
    Mutant(
        "claim writes the payload anew",
        "protocol/lua/parts/take.lua",
        "name .. raw)",
        "name .. (pcall(cjson.decode, raw) and cjson.encode(cjson.decode(raw)) or raw))",
        (CONTRACTS, "every_settle_is_told_once"),
    ),
    Mutant(
        "recover without a look at the token",
        "protocol/lua/recover.lua",
        "~= expected then",
        "~= expected and false then",
        (SCRIPTS, "a_job_is_not_recovered_when_the_slot_has_changed"),
    ),
    Mutant(
        "recover without a look at the owner",
        "protocol/lua/recover.lua",
        'if (redis.call("GET", owner) or "") ~= claim then return {"CHANGED"} end\n',
        "",
        (SCRIPTS, "a_job_is_not_recovered_when_the_owner_has_changed"),
    ),
    Mutant(
        "recover without a look at the lease",
        "protocol/lua/recover.lua",
        'if heed_lease == "1" and',
        'if heed_lease == "2" and',
        (SCRIPTS, "a_standing_lease_protects_a_job_from_those_who_heed_it"),
    ),
    Mutant(
        "recover leaves the job in the slot",
        "protocol/lua/recover.lua",
        'redis.call("DEL", slot, own_lease)',
        'redis.call("DEL", own_lease)',
        (CONTRACTS, "a_recovered_worker_gets_no_lock"),
    ),
    Mutant(
        "recover puts the job at the tail",
        "protocol/lua/recover.lua",
        'redis.call("LPUSH", queue, raw)',
        'redis.call("RPUSH", queue, raw)',
        (SCRIPTS, "a_settle_after_a_recovery_is_lost_and_changes_nothing"),
    ),
    Mutant(
        "recover does not remember what it recovered",
        "protocol/lua/recover.lua",
        'redis.call("SET", last, "-" .. expected, "EX", 3600)\n',
        'redis.call("SET", last, expected, "EX", 3600)\n',
        (CONTRACTS, "a_job_that_a_foreign_tool_has_failed_is_not_brought_back_as_well"),
    ),
    Mutant(
        "recover never condemns",
        "protocol/lua/recover.lua",
        "elseif deaths >= tonumber(limit) then",
        "elseif deaths > 99 then",
        (SCRIPTS, "a_death_counts_for_three_days_from_the_first"),
    ),
    Mutant(
        "recover brings back what a foreign tool has failed",
        "protocol/lua/recover.lua",
        'if foreign == "1" and',
        'if foreign == "2" and',
        (CONTRACTS, "a_job_that_a_foreign_tool_has_failed_is_not_brought_back_as_well"),
    ),
    Mutant(
        "recover keeps the locks of the dead",
        "protocol/lua/recover.lua",
        "tell(answer, expected, name, raw)\nunlock(locks, first_lock)\n",
        "tell(answer, expected, name, raw)\n",
        (CONTRACTS, "recovery_frees_the_locks_of_the_dead_and_no_others"),
    ),
    Mutant(
        "recover does not see a lock taken meanwhile",
        "protocol/lua/recover.lua",
        'if redis.call("HLEN", locks) ~= #KEYS - first_lock + 1 then return {"CHANGED"} end\n',
        "",
        (CONTRACTS, "a_lock_that_was_taken_after_the_look_makes_the_recoverer_look_again"),
    ),
    Mutant(
        "locks are freed whoever holds them",
        "protocol/lua/parts/unlock.lua",
        'redis.pcall("GET", KEYS[i]) == value',
        "value",
        (CONTRACTS, "a_settle_does_not_free_a_lock_that_has_passed_to_somebody_else"),
    ),
    Mutant(
        "promote without a look at the locks",
        "protocol/lua/promote.lua",
        '  if redis.call("GET", KEYS[i]) ~= token then return {"FENCED"} end\n',
        "",
        (SCRIPTS, "without_each_of_the_three_locks_nothing_is_promoted"),
    ),
    Mutant(
        "promote without a look at the head",
        "protocol/lua/promote.lua",
        "    if heads[i + 1] ~= ARGV[at + 3 * i] then return i end\n",
        "",
        (SCRIPTS, "due_jobs_move_to_their_queue_in_order_and_leave_no_trace_behind"),
    ),
    Mutant(
        "promote before the second has come",
        "protocol/lua/promote.lua",
        '  if tonumber(second) > now then return "EARLY", "" end\n',
        "",
        (SCRIPTS, "a_job_is_not_promoted_before_its_second_by_redis_clock"),
    ),
    Mutant(
        "promote copies",
        "protocol/lua/promote.lua",
        'redis.call("LPOP", bucket, moved)',
        'redis.call("LRANGE", bucket, 0, 0)',
        (SCRIPTS, "due_jobs_move_to_their_queue_in_order_and_leave_no_trace_behind"),
    ),
    Mutant(
        "promote drops what is no job",
        "protocol/lua/promote.lua",
        "    fail(target, name, entry)\n",
        "",
        (SCRIPTS, "a_delayed_item_that_is_no_job_fails_with_its_bytes_kept"),
    ),
    Mutant(
        "promote forgets the rest of a second",
        "protocol/lua/promote.lua",
        "if left == 0 then table.insert(spent",
        "if left >= 0 then table.insert(spent",
        (SCRIPTS, "a_batch_moves_a_hundred_jobs_and_says_how_many_are_left"),
    ),
    Mutant(
        "lead takes the lock of another",
        "protocol/lua/lead.lua",
        'if current and current ~= token then return {"FOLLOW", current} end\n',
        "",
        (SCRIPTS, "a_second_scheduler_follows_and_changes_nothing"),
    ),
    Mutant(
        "lead does not care for foreign schedulers",
        "protocol/lua/lead.lua",
        'if holder ~= "" then return {"LEAD", "0", holder} end\n',
        "",
        (SCRIPTS, "a_lock_of_another_language_blocks_promotion_and_gets_an_end"),
    ),
    Mutant(
        "resign gives up the locks of others",
        "protocol/lua/resign.lua",
        'redis.pcall("GET", KEYS[i]) == token',
        'redis.pcall("GET", KEYS[i])',
        (SCRIPTS, "resign_gives_up_only_what_is_ours"),
    ),
    Mutant(
        "tick enqueues a moment twice",
        "protocol/lua/tick.lua",
        'if last >= tonumber(moment) then return {"SEEN"} end\n',
        "",
        (CONTRACTS, "a_moment_of_a_schedule_is_enqueued_once"),
    ),
    Mutant(
        "tick by one who does not lead",
        "protocol/lua/tick.lua",
        'if redis.call("GET", leader) ~= token then return {"FENCED"} end\n',
        "",
        (CONTRACTS, "a_late_leader_enqueues_nothing"),
    ),
    Mutant(
        "enqueue forgets its requests",
        "protocol/lua/enqueue.lua",
        'redis.call("SET", producer, sequence, "EX", remember, "GET")\n',
        'redis.call("GET", producer)\n',
        (SCRIPTS, "an_enqueue_that_is_sent_again_adds_nothing"),
    ),
    Mutant(
        "enqueue_at forgets its requests",
        "protocol/lua/enqueue_at.lua",
        'redis.call("SET", producer, sequence, "EX", remember)\n',
        'redis.call("EXISTS", producer)\n',
        (SCRIPTS, "a_delayed_job_is_in_its_bucket_the_schedule_and_the_set_of_its_seconds"),
    ),
    Mutant(
        "enqueue_at looks at its own spelling only",
        "protocol/lua/enqueue_at.lua",
        'if redis.pcall("SISMEMBER", KEYS[i], mark) == 1 then return {"EXISTS"} end',
        'redis.pcall("SISMEMBER", KEYS[i], mark)',
        (QUEUE, "a_delayed_job_of_ruby_is_an_equal_job"),
    ),
    Mutant(
        "bulk forgets its requests",
        "protocol/lua/bulk.lua",
        'redis.call("SET", producer, sequence, "EX", remember)\n',
        'redis.call("EXISTS", producer)\n',
        (BULK, "a_lost_answer_doubles_and_loses_nothing"),
    ),
    Mutant(
        "a bulk stores a part of a portion",
        "protocol/lua/bulk.lua",
        '  if not fits(KEYS[i], "list") then return {"BADKEY", KEYS[i]} end\n',
        "",
        (BULK, "a_portion_for_a_wrong_type_is_not_stored_at_all"),
    ),
    Mutant(
        "a bulk that goes on asks a plugin again",
        "producer.py",
        "again=request == begun",
        "again=False",
        (BULK, "a_bulk_that_goes_on_asks_no_plugin_again"),
    ),
    Mutant(
        "a queue is walked from its head",
        "protocol/backlog.py",
        "            page = self._range(queue, start, stop)\n",
        "            page = self._range(queue, -stop - 1, -stop + PAGE - 2)  # from the head\n",
        (WAITING, "no_job_is_passed_over_while_others_come_and_go"),
    ),
    Mutant(
        "deleting from the tail deletes from the head",
        "protocol/lua/delete_jobs.lua",
        "tonumber(count) < 0 and -1 or 1",
        "1",
        (WAITING, "so_many_are_deleted_from_the_head_or_from_the_tail"),
    ),
    Mutant(
        "a deleted delayed job leaves its mark",
        "protocol/lua/delete_delayed.lua",
        '  if marked then redis.call("SREM", timestamps, "delayed:" .. second) end\n',
        "",
        (DELAYED, "deleting_the_only_delayed_job_leaves_an_empty_redis"),
    ),
    Mutant(
        "a deleted delayed job leaves its second",
        "protocol/lua/delete_delayed.lua",
        '  if scheduled and kind(bucket) == "none" then redis.call("ZREM", schedule, second) end\n',
        "",
        (DELAYED, "deleting_the_only_delayed_job_leaves_an_empty_redis"),
    ),
    Mutant(
        "a lock is freed while an equal job waits",
        "protocol/lua/free_lock.lua",
        'if redis.call("LPOS", queue, ARGV[i]) then return 0 end',
        'redis.call("LPOS", queue, ARGV[i])',
        (LOCKS, "a_lock_stays_while_an_equal_job_waits"),
    ),
    Mutant(
        "the lock of a job on its way is freed",
        "protocol/lua/free_lock.lua",
        "if left >= 0 and left <= tonumber(brief) then return 0 end\n",
        "",
        (LOCKS, "the_lock_of_a_job_on_its_way_is_left_alone"),
    ),
    Mutant(
        "True is the number 1",
        "protocol/spellings.py",
        "isinstance(left, bool) is not isinstance(right, bool) or left != right",
        "left != right",
        ("tests/unit/test_spellings.py", "different_values_are_not_the_same"),
    ),
    Mutant(
        "requeue_failed puts back what is gone",
        "protocol/lua/requeue_failed.lua",
        'if found == 0 then return {"MOVED"} end\n',
        "",
        (SCRIPTS, "a_failure_record_that_is_gone_requeues_nothing"),
    ),
    Mutant(
        "requeue_failed keeps the record",
        "protocol/lua/requeue_failed.lua",
        'found = redis.call("LREM", KEYS[i], from, entry)',
        'found = redis.call("LPOS", KEYS[i], entry) and 1 or 0',
        (SCRIPTS, "a_failed_job_goes_back_once_with_the_bytes_it_came_with"),
    ),
    Mutant(
        "a sweep takes equal records unasked",
        "protocol/lua/take_failed.lua",
        "which[raw] and table.remove(which[raw])",
        "which[raw] and which[raw][1]",
        (SWEEP, "of_equal_records_as_many_are_taken_as_were_asked_for"),
    ),
    Mutant(
        "a sweep that is asked for again takes again",
        "protocol/lua/take_failed.lua",
        "if seen >= tonumber(sequence) then",
        "if seen > tonumber(sequence) then",
        (SWEEP, "an_answer_that_gets_lost_is_asked_for_again_and_nothing_is_doubled"),
    ),
    Mutant(
        "a failure goes to a list that nobody knows",
        "protocol/lua/parts/fail.lua",
        '  if name ~= "" then redis.call("SADD", failed_lists, name) end\n',
        "",
        (FAILED_LISTS, "a_job_that_fails_goes_to_the_list_of_its_queue"),
    ),
    Mutant(
        "settle fails into the list of all",
        "protocol/claims.py",
        " or outcome in _MOVING or failed_apart:",
        " or outcome in _MOVING:",
        (FAILED_LISTS, "a_job_that_fails_goes_to_the_list_of_its_queue"),
    ),
    Mutant(
        "a queue passes for a failed list",
        "protocol/keys.py",
        ' and not name.startswith("queue:")',
        "",
        (FAILED_LISTS, "what_the_set_of_lists_should_not_hold_is_no_failed_list"),
    ),
    Mutant(
        "a record is sought only where it should be",
        "protocol/failures.py",
        "if size and key not in likely",
        "if size and key in likely",
        (FAILED_LISTS, "a_failed_job_is_found_in_whichever_list_it_is"),
    ),
    Mutant(
        "a walk passes over what moved up",
        "protocol/pages.py",
        "            self._at, self._behind = 0, []\n",
        "            self._behind = []\n",
        (STUCK, "none_is_passed_over_when_others_remove_records"),
    ),
    Mutant(
        "what Ruby has retried is retried again",
        "protocol/stuck.py",
        "if failure.retried_at or not failure.payload",
        "if not failure.payload",
        (STUCK, "any_other_failure_is_left_alone_and_stops_nothing"),
    ),
    Mutant(
        "register overlooks what a namesake has in hand",
        "protocol/lua/register.lua",
        '  if redis.call("EXISTS", slot) == 1 then return {"BUSY"} end\n',
        "",
        (SCRIPTS, "an_id_is_taken_over_only_after_its_job_is_recovered"),
    ),
    Mutant(
        "unregister with a job in hand",
        "protocol/lua/unregister.lua",
        'if redis.call("EXISTS", slot) == 1 then return {"BUSY"} end\n',
        "",
        (SCRIPTS, "unregister_waits_for_the_job_in_the_slot"),
    ),
    Mutant(
        "a late beat takes over a lease",
        "protocol/lua/beat.lua",
        'if current and current ~= value then return {"STOLEN"} end\n',
        "",
        (SCRIPTS, "a_beat_for_a_lease_that_somebody_else_holds_is_stolen"),
    ),
    Mutant(
        "a late beat revives the dead",
        "protocol/lua/beat.lua",
        '  if redis.call("SISMEMBER", kids, worker) == 1 then\n',
        "  if worker then\n",
        (SCRIPTS, "a_late_beat_revives_nobody"),
    ),
    Mutant(
        "clean_foreign cleans our own",
        "protocol/lua/clean_foreign.lua",
        'if redis.call("EXISTS", owner) == 1 then return {"OURS"} end\n',
        "",
        (CONTRACTS, "our_own_workers_are_never_cleaned"),
    ),
    Mutant(
        "clean_foreign cleans the living",
        "protocol/lua/clean_foreign.lua",
        'if redis.pcall("GET", ping) ~= sign then return {"ALIVE"} end\n',
        "",
        (CONTRACTS, "a_worker_that_gives_a_sign_of_life_is_left_alone"),
    ),
    Mutant(
        "force_clean cleans our own",
        "protocol/lua/force_clean.lua",
        'if redis.call("EXISTS", owner) == 1 then return {"OURS"} end\n',
        "",
        (STAFF, "one_of_ours_that_registers_meanwhile_is_not_removed_as_anothers"),
    ),
    Mutant(
        "force_clean fails a job that has ended",
        "protocol/lua/force_clean.lua",
        ' ~= seen then return {"CHANGED"} end',
        " == 1 then return {} end",
        (STAFF, "a_job_that_ends_meanwhile_does_not_fail_as_well"),
    ),
    Mutant(
        "force_clean leaves the record, as node does",
        "protocol/lua/force_clean.lua",
        'redis.call("DEL", record, ',
        'redis.call("DEL", ',
        (STAFF, "two_cleaners_fail_a_job_once"),
    ),
    Mutant(
        "a cleaner recovers who lives here",
        "protocol/cleaning.py",
        "if not lost or carrier_lives(held.owner):",
        "if not lost:",
        (STAFF, "a_worker_that_outlives_its_master_here_is_not_removed"),
    ),
    Mutant(
        "a cleaner recovers who holds on to its job",
        "protocol/cleaning.py",
        "heed_lease=lease is None",
        "heed_lease=False",
        (STAFF, "a_worker_that_holds_on_to_its_job_alone_is_not_removed"),
    ),
    Mutant(
        "a cleaner recovers the living",
        "protocol/cleaning.py",
        "lost = lease is None or _is_dead_here(lease)",
        "lost = True",
        (STAFF, "a_living_worker_of_ours_is_never_removed"),
    ),
    Mutant(
        "lock_take takes what another holds",
        "protocol/lua/lock_take.lua",
        "  if not ends or ends >",
        "  if not ends and 1 >",
        (CONTRACTS, "a_lock_that_another_holds_is_not_taken_and_not_freed"),
    ),
    Mutant(
        "lock_drop frees what another holds",
        "protocol/lua/lock_drop.lua",
        'if redis.pcall("GET", lock) ~= value then return 0 end\n',
        "",
        (CONTRACTS, "a_lock_that_has_passed_to_somebody_else_is_not_dropped"),
    ),
    Mutant(
        "a host is lost at the first look",
        "policy/verdicts.py",
        "return misses >= 2 and reached_for >= lease",
        "return misses >= 1",
        (
            VERDICTS,
            "a_host_is_lost_after_two_looks_by_a_clerk_that_was_itself_in_touch_for_a_lease",
        ),
    ),
    Mutant(
        "masters that live are taken for dead",
        "supervisor/recovery.py",
        "not processes.is_described_alive(value)",
        "processes.is_described_alive(value)",
        (MASTERS, "jobs_of_a_host_killed_in_one_stroke"),
    ),
    Mutant(
        "every job that a death has hit is to blame",
        "supervisor/recovery.py",
        "return Blame.NOBODY if died.cut else Blame.JOB",
        "return Blame.JOB",
        (DRAIN, "nothing_prolongs_a_drain"),
    ),
    Mutant(
        "a worker that pauses keeps a job that came late",
        "worker.py",
        "        if self._station.open:\n            return job\n",
        "        if job:\n            return job\n",
        (DRAIN, "claim_is_answered_after_the_signal"),
    ),
    Mutant(
        "a producer is used again after a lost answer",
        "producer.py",
        "        except EnqueueUnknown:\n            self._local.retire()\n            raise\n",
        "        finally:\n            pass\n",
        (RESENDS, "a_lost_question_can_be_asked_again"),
    ),
    Mutant(
        "a retry of an enqueue is a new request",
        "producer.py",
        "return self._retrying(send, request)",
        "return self._retrying(lambda _request: send(self._local.next()), request)",
        (RESENDS, "an_enqueue_is_stored_once"),
    ),
    Mutant(
        "an acknowledgement is not counted",
        "protocol/store.py",
        "if not isinstance(number, int) or number < 1:",
        "if not isinstance(number, int):",
        (CONTRACTS, "without_a_replica"),
    ),
    Mutant(
        "delayed jobs are rounded down",
        "producer.py",
        "math.ceil(epoch(moment))",
        "math.floor(epoch(moment))",
        (QUEUE, "a_delay_is_rounded_up_and_never_early_by_redis_clock"),
    ),
]

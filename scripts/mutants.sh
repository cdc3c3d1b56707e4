#!/usr/bin/env bash
# Takes one protection at a time out of the library and expects a test to fail: a test that stays green without a protection does
# not test it. Without arguments, every mutant.
#
#   scripts/mutants.sh [--quick] [MUTANT...]      --quick: without those that take half a minute or more
#
# `mutant!("NAME")` in core's sources is chosen by the variable SIGSAFE_MUTANT, in a build with `--cfg sigsafe_mutants` that serves
# them all. `cfg(sigsafe_mutant = "NAME")` takes a build of its own, and is for what cannot be decided at run time. Either flag
# is given to this workspace's crates alone through a compiler wrapper, so that their dependencies are not built again. `cargo`
# keeps the results apart from those of an ordinary build.
set -euo pipefail
cd "$(dirname "$0")/.."

# mutant: the test that must turn red, as arguments of `cargo test`
declare -A catches=(
  # regions and the mask
  [no-frame-mask]="-p sigsafe-core --test limits real_time_signals_keep_their_order_in_a_sandbox"
  [no-flush]="-p sigsafe-core --test region signals_wait_for_the_end_of_a_region_of_every_form"
  [mask-per-guard]="-p sigsafe-core --test property"
  [one-counter]="-p sigsafe-core --test property"
  [handler-flushes-below]="-p sigsafe-core --test sweep_return an_immediate_handler_at_every_instruction_of_an_exit_leaves_it_its_flush"
  [unannounced-flush]="-p sigsafe-core --test sweep_window the_mask_that_a_handler_sees_at_every_instruction_of_a_flush"
  [announced-too-long]="-p sigsafe-core --test sweep_window a_handler_that_is_let_in_over_another_sees_that_one_s_signal_blocked"
  [below-until-return]="-p sigsafe-core --test sweep_window the_mask_that_a_handler_sees_at_every_instruction_of_a_trampoline"
  [below-restored-first]="-p sigsafe-core --test sweep_window the_mask_that_a_handler_sees_at_every_instruction_of_a_trampoline"
  [handler-returns-open]="-p sigsafe-core --test sweep_return a_handler_that_unblocks_what_the_thread_has_blocked_leaves_it_blocked"
  [inner-exit-flushes]="-p sigsafe-core --test region a_foreign_handler_waits_for_the_end_of_a_full_mask_region"
  [faults-blocked]="-p sigsafe-core --test faults a_null_read_in_a_region_reaches_its_handler_and_the_region_goes_on"
  [reserved-blocked]="-p sigsafe-core --test libc_signals setgid_in_another_thread_is_not_stalled_by_a_region"
  [kernel-s-mask]="-p sigsafe-core --test mask current_shows_the_logical_mask_while_a_region_holds_signals_back"
  [blocked-is-forgotten]="-p sigsafe-core --test mask what_is_blocked_in_a_region_stays_blocked_after_it"
  [unblocked-is-forgotten]="-p sigsafe-core --test mask what_is_unblocked_in_a_region_is_let_in_at_its_end"
  [temporary-mask-ignored]="-p sigsafe-core --test delivery a_temporary_mask_in_a_region_admits_a_signal_that_the_thread_had_blocked"
  [suspend-unannounced]="-p sigsafe-core --test suspend of_two_admitted_at_once_both_run"
  [admitted-in-full-region]="-p sigsafe-core --test suspend a_full_mask_region_of_an_admitted_handler_blocks"
  [announced-is-in-force]="-p sigsafe-core --test suspend an_immediate_handler_right_before_the_call_lets_nothing_in"
  [blocked-fault-ran]="-p sigsafe-core --test suspend suspend_admits_a_sent_fault_that_was_blocked_since"
  [suspend-forgets-kept]="-p sigsafe-core --test suspend temporary_does_not_sleep_for_what_has_come"
  # capture
  [real-time-requeued]="-p sigsafe-core --test realtime a_stream_to_the_thread_is_complete_and_in_order"
  [real-time-requeued-by-exit]="-p sigsafe-core --test sweep_order real_time_signals_at_every_instruction_keep_their_order"
  [begun-is-lost]="-p sigsafe-core --test realtime a_token_whose_handler_is_about_to_begin_is_not_sent_again"
  [removed-is-requeued]="-p sigsafe-core --test realtime signals_whose_handler_is_removed_while_they_are_blocked_keep_their_order"
  [newcomer-hidden]="-p sigsafe-core --test sweep_order a_handler_at_every_instruction_of_taking_takes_in_order"
  [head-passed-over]="-p sigsafe-core --lib the_head_of_the_queue_is_taken_whoever_has_the_token"
  [dropped-unseen]="-p sigsafe-core --test sweep_fork a_signal_of_the_child_s_own_is_not_dropped_with_its_parent_s"
  [no-exchange]="-p sigsafe-core --test realtime a_stream_to_the_thread_is_complete_and_in_order"
  [no-token]="-p sigsafe-core --test realtime a_stream_to_the_process_is_complete_and_in_order"
  [lost-token-unnoticed]="-p sigsafe-core --test realtime a_token_that_libc_takes_leaves_its_signal"
  [tokenless-requeued]="-p sigsafe-core --test limits a_refused_token_leaves_other_streams_in_order"
  [refused-token-forgotten]="-p sigsafe-core --test limits real_time_signals_keep_their_order_in_a_sandbox"
  [refused-is-lost]="-p sigsafe-core --test limits what_a_sandbox_does_not_let_requeue_is_handled_at_the_region_s_end"
  [siginfo-not-copied]="-p sigsafe-core --test process the_siginfo_of_a_captured_legacy_signal_survives_a_full_queue"
  [sent-fault-at-once]="-p sigsafe-core --test process a_sent_fault_is_deferred_and_not_lost"
  [sent-faults-kept]="-p sigsafe-core --test process a_sent_fault_is_deferred_and_not_lost"
  [abort-deferred]="-p sigsafe-core --test process abort_in_a_deferring_region_runs_the_handler_and_dies_of_sigabrt"
  [continue-requeued]="-p sigsafe-core --test jobcontrol a_stop_sent_while_a_continue_is_captured_is_handled"
  [stop-keeps-cont]="-p sigsafe-core --test jobcontrol a_continue_that_a_region_has_captured_is_discarded_by_a_stop"
  [vfork-unnoticed]="-p sigsafe-core --test vfork a_vfork_child_that_gets_a_sent_fault_leaves_its_parent_s_signals"
  [vfork-edits-mask]="-p sigsafe-core --test vfork mask_operations_of_a_vfork_child_leave_its_parent_s_region_alone"
  [fork-keeps-slots]="-p sigsafe-core --test inherit a_fork_in_a_region_leaves_the_signal_to_the_parent_alone"
  [thread-id-alone]="-p sigsafe-core --test inherit a_thread_of_a_fork_s_child_has_no_number_of_a_thread_of_the_parent"
  [leave-opens]="-p sigsafe-core --test leave a_region_that_ends_after_leaving_lets_nothing_in"
  [exit-forgets]="-p sigsafe-core --test leave a_signal_of_the_process_is_handled_by_another_thread"
  [pc-of-exit]="-p sigsafe-core --test place the_program_counter_is_that_of_the_arrival"
  [taken-leaves-place]="-p sigsafe-core --test place what_came_after_one_that_was_taken_has_no_program_counter"
  [admitted-leaves-place]="-p sigsafe-core --test place what_came_after_one_that_was_taken_has_no_program_counter"
  # handlers
  [no-table-lock]="-p sigsafe-core --test held a_removal_that_is_held_up_does_not_undo_an_installation"
  [mask-of-another]="-p sigsafe-core --test handler a_handler_that_replaces_one_with_a_frame_has_its_own_mask"
  [immediate-waits]="-p sigsafe-core --test handler an_immediate_handler_runs_in_a_region_and_uses_regions"
  [below-forgotten]="-p sigsafe-core --test posix of_a_requeued_and_a_real_time_signal"
  [guards-leak]="-p sigsafe-core --test handler guards_forgotten_by_a_handler_end_with_it"
  [errno-spoiled]="-p sigsafe-core --test delivery errno_is_kept_over_a_delivery"
  [no-defer-in-kernel]="-p sigsafe-core --test handler no_defer_lets_a_handler_be_interrupted_by_its_own_signal"
  [no-defer-forgotten]="-p sigsafe-core --test handler no_defer_lets_a_handler_be_interrupted_by_its_own_signal"
  [reset-hand-in-kernel]="-p sigsafe-core --test handler reset_hand_restores_the_default_at_the_first_delivery"
  [one-shot-stays]="-p sigsafe-core --test handler reset_hand_restores_the_default_at_the_first_delivery"
  [stack-not-asked-for]="-p sigsafe-core --test delivery a_handler_runs_on_the_alternate_stack_if_it_asked_for_it"
  [passed-on-to-the-top]="-p sigsafe-core --test forward a_foreign_handler_below_that_passes_signals_on_reaches_the_one_below_it"
  [refusal-unnoticed]="-p sigsafe-core --test reentry a_sandbox_that_refuses_changes_nothing"
  [change-without-region]="-p sigsafe-core --test reentry handlers_of_sent_faults_change_the_handler_that_is_being_changed"
  [section-without-region]="-p sigsafe-core --test critical_section a_managed_handler_with_a_section_under_a_storm"
  [section-without-lock]="-p sigsafe-core --test critical_section sections_of_threads_exclude_each_other"
  [wake-kept]="-p sigsafe-core --test waiting a_wake_is_passed_on_before_a_handler_runs"
  [spawn-unblocked]="-p sigsafe-core --test spawn_storm no_handler_runs_on_a_new"
  # notifier
  [enable-unacknowledged]="-p sigsafe-core --test notifier_changes enable_is_in_force_when_it_returns"
  [disposition-kept]="-p sigsafe-core --test notifier the_last_subscriber_s_end_restores_the_disposition"
  [notifier-unmasked]="-p sigsafe-core --test notifier_changes a_signal_blocked_everywhere_else_does_not_kill"
  [notifier-starved]="-p sigsafe-core --test notifier_threads a_signal_that_the_notifier_alone_takes_arrives"
  [notifier-overwhelmed]="-p sigsafe-core --test notifier_changes what_nobody_else_takes_waits_in_the_kernel"
  [notifier-unsettled]="-p sigsafe-core --test held a_subscription_ends_after_the_handlers_that_are_writing"
  [merged-in-silence]="-p sigsafe-core --test held a_signal_that_found_the_pipe_full_is_delivered_though_it_is_empty_by_then"
  [relay-swallows]="-p sigsafe-core --test notifier_threads a_fork_s_child_has_subscriptions_of_its_own"
  [standard-descriptors]="-p sigsafe-core --test notifier_descriptors what_a_daemon_prints_does_not_get_into_the_notifier_s_pipes"
  [closed-in-silence]="-p sigsafe-core --test notifier_descriptors a_program_that_closes_the_pipe_s"
  [notifier-of-parent]="-p sigsafe-core --test notifier_threads a_fork_s_child_has_subscriptions_of_its_own"
  # the allocator
  [unmarked]="-p sigsafe-alloc --test every_instruction the_lists_of_the_cache"
  [marked-late]="-p sigsafe-alloc --test every_instruction the_lists_of_the_cache"
  [cleared-early]="-p sigsafe-alloc --test every_instruction the_lists_of_the_cache"
  [parked-in-allocator]="-p sigsafe-alloc --test every_instruction the_lists_of_the_cache"
  [not-let-in]="-p sigsafe-alloc --test every_instruction the_lists_of_the_cache"
  [flushed-is-forgotten]="-p sigsafe-alloc --test over what_a_foreign_handler_lets_in_during_a_capture_is_not_blocked_for_good"
  [one-stack]="-p sigsafe-alloc --test over on_a_signal_stack_above_the_thread_s_neither"
  [owed-is-added]="-p sigsafe-alloc --test over what_a_foreign_handler_blocks_over_an_operation_stays_blocked"
  [left-not-let-in]="-p sigsafe-alloc --test leaving what_arrives_in_operations_without_the_cache_is_let_in_at_their_ends"
  [waiting-uncounted]="-p sigsafe-alloc --test memory what_a_thread_frees_that_never_allocates_serves_the_others"
  [room-once]="-p sigsafe-alloc --test leaving a_free_that_is_left_does_not_hide_its_chunk_from_those_that_come_later"
  [dirty-is-zero]="-p sigsafe-alloc --test every_instruction spans_their_stack_and_chunks"
  [popped-in-two-steps]="-p sigsafe-alloc --test every_instruction spans_their_stack_and_chunks"
  [allocator-spoils-errno]="-p sigsafe-alloc --test every_instruction runs_and_mappings"
  [kept-unbounded]="-p sigsafe-alloc --test memory the_bound_is_that_of_large_blocks_too"
  [cache-not-drained]="-p sigsafe-alloc --test memory what_a_thread_frees_that_never_allocates_serves_the_others"
  [stack-untagged]="-p sigsafe-alloc --lib models::stacks::a_pop_is_not_fooled_by_a_top_that_has_gone_and_come_back"
  [full-unchecked]="-p sigsafe-alloc --lib models::chunks::a_unit_that_is_freed_as_the_chunk_fills_is_found"
  [purged-in-use]="-p sigsafe-alloc --lib models::chunks::memory_is_given_back_beside_claims_and_releases"
  [freed-unannounced]="-p sigsafe-alloc --lib models::spans::a_full_span_that_two_threads_free_into_is_on_its_stack_once"
)
# Their tests sweep for long, wait for a limit, or are models, for which all dependencies are built again.
slow=" below-restored-first below-until-return closed-in-silence stack-untagged full-unchecked purged-in-use freed-unannounced "
quick=false
[ "${1:-}" != --quick ] || { quick=true && shift; }
names=("$@")
[ $# -gt 0 ] || readarray -t names < <(printf '%s\n' "${!catches[@]}" | sort)

target=${CARGO_TARGET_DIR:-target}
log=$target/mutants.log

# with_flag DIRECTORY FLAG COMMAND...: runs COMMAND with the flag given to the workspace's crates.
with_flag() {
  mkdir -p "$target/mutants/$1"
  local wrapper
  wrapper=$(cd "$target/mutants/$1" && pwd)/rustc
  # Only when it changes: cargo builds again after a newer compiler.
  [ -x "$wrapper" ] || { printf '#!/bin/sh\nexec "$@" --cfg '"'%s'"'\n' "$2" >"$wrapper" && chmod +x "$wrapper"; }
  RUSTC_WORKSPACE_WRAPPER=$wrapper "${@:3}"
}

# sound: the test passes in the same build while no mutant is chosen; or else what it says of one means nothing.
declare -A passed
sound() {
  [ -z "${passed[$test]:-}" ] || return 0
  "${build[@]}" env SIGSAFE_MUTANT=none timeout 600 cargo test -q "${arguments[@]}" >"$log" 2>&1 || return 1
  passed[$test]=yes
}

survivors=0
for name in "${names[@]}"; do
  [[ $quick = true && $slow == *" $name "* ]] && continue
  test=${catches[$name]:-}
  if [ -z "$test" ]; then
    printf 'unknown mutant %s; there are: %s\n' "$name" "${!catches[*]}" >&2
    exit 2
  fi
  if grep -rqF "mutant!(\"$name\")" sigsafe-*/src; then
    build=(with_flag all sigsafe_mutants env "SIGSAFE_MUTANT=$name")
  elif grep -rqF "sigsafe_mutant = \"$name\"" sigsafe-*/src; then
    build=(with_flag "$name" "sigsafe_mutant=\"$name\"" env)
  else
    printf 'mutant %-26s is nowhere in the sources\n' "$name" >&2
    exit 2
  fi
  # The models' own kind of build.
  [[ $test != *' --lib models::'* ]] || build+=("RUSTFLAGS=--cfg loom")
  read -ra arguments <<<"$test"
  if [[ $quick = false && ${build[1]} = all ]] && ! sound; then
    printf 'mutant %-26s: without it %s fails too, see %s\n' "$name" "${arguments[3]} ${arguments[4]:-}" "$log"
    survivors=$((survivors + 1))
    continue
  fi
  start=$SECONDS
  if PROPTEST_DISABLE_FAILURE_PERSISTENCE=1 "${build[@]}" timeout 600 cargo test -q "${arguments[@]}" >"$log" 2>&1; then
    printf 'mutant %-26s SURVIVED: %s\n' "$name" "$test"
    survivors=$((survivors + 1))
  # One that does not compile has no such line.
  elif grep -q '^test result: FAILED' "$log"; then
    printf 'mutant %-26s caught by %s (%s s)\n' "$name" "${arguments[3]} ${arguments[4]:-}" "$((SECONDS - start))"
  else
    printf 'mutant %-26s: no verdict, see %s\n' "$name" "$log"
    survivors=$((survivors + 1))
  fi
done
[ "$survivors" -eq 0 ]

//! The table of scenarios. Each is short, and its script checks the outcome if no call fails.
//!
//! A script says which clients depend on which others. No other client may notice a failure.

use slabd::buffer::BufferMode;
use slabd::limits::Limits;

use super::admission::*;
use super::bounds::*;
use super::commands::*;
use super::datagrams::*;
use super::scenario::{Kind, Scenario, limits};
use super::streams::*;
use super::web::*;
use super::world::World;

/// A scenario of listeners with the usual limits.
const fn on(name: &'static str, listeners: &'static [Kind], script: fn(&mut World)) -> Scenario {
    Scenario { name, listeners, sockets: &[], buffers: BufferMode::Pooled, limits, script }
}

/// A scenario of listeners with special limits.
const fn with(
    name: &'static str,
    listeners: &'static [Kind],
    limits: fn() -> Limits,
    script: fn(&mut World),
) -> Scenario {
    Scenario { name, listeners, sockets: &[], buffers: BufferMode::Pooled, limits, script }
}

/// A scenario of listeners and datagram sockets.
const fn datagrams(name: &'static str, kind: &'static [Kind], script: fn(&mut World)) -> Scenario {
    Scenario { name, listeners: kind, sockets: kind, buffers: BufferMode::Pooled, limits, script }
}

pub const SCENARIOS: &[Scenario] = &[
    // Lines and bytes.
    on("a_greeting_and_a_line", &[Kind::Hello], a_greeting_and_a_line),
    on("a_line_in_two_parts", &[Kind::Hello], a_line_in_two_parts),
    on("more_lines_than_a_turn_takes", &[Kind::Hello], more_lines_than_a_turn_takes),
    on("several_clients_at_once", &[Kind::Hello], several_clients_at_once),
    on("echo_of_more_than_a_window", &[Kind::Echo], echo_of_more_than_a_window),
    on("a_slow_reader_is_blocked_and_resumes", &[Kind::Echo], a_slow_reader_is_blocked_and_resumes),
    with("paused_by_backpressure", &[Kind::Echo], narrow, paused_by_backpressure),
    Scenario {
        buffers: BufferMode::Fixed(256),
        ..on("buffers_of_a_fixed_size", &[Kind::Hello], buffers_of_a_fixed_size)
    },
    // Ends of streams.
    on("a_half_close_with_pending_answers", &[Kind::Echo], a_half_close_with_pending_answers),
    on("a_half_close_after_an_unended_line", &[Kind::Hello], a_half_close_after_an_unended_line),
    on("a_reset_in_the_middle_of_a_message", &[Kind::Hello], a_reset_in_the_middle_of_a_message),
    on("a_reset_with_pending_output", &[Kind::Echo], a_reset_with_pending_output),
    on("clients_gone_before_the_accept", &[Kind::Hello], clients_gone_before_the_accept),
    with("a_line_too_long", &[Kind::Hello], short_lines, a_line_too_long),
    with("input_while_lingering", &[Kind::Hello], short_lines, input_while_lingering),
    with(
        "lingering_until_the_close_timeout",
        &[Kind::Hello],
        short_lines,
        lingering_until_the_close_timeout,
    ),
    with("closing_with_unread_output", &[Kind::Hello], short_lines, closing_with_unread_output),
    // Commands.
    on("ping", &[Kind::Hub], ping),
    on("a_pipeline", &[Kind::Hub], a_pipeline),
    on("a_large_answer_to_a_slow_reader", &[Kind::Hub], a_large_answer_to_a_slow_reader),
    on("hello_3", &[Kind::Hub], hello_3),
    on("the_right_password", &[Kind::Locked], the_right_password),
    on("the_wrong_password", &[Kind::Locked], the_wrong_password),
    on("no_password", &[Kind::Locked], no_password),
    on("replies_unread_before_a_password", &[Kind::Locked], replies_unread_before_a_password),
    on("subscribe_publish_unsubscribe", &[Kind::Hub], subscribe_publish_unsubscribe),
    on("fan_out_with_a_slow_subscriber", &[Kind::Hub], fan_out_with_a_slow_subscriber),
    on(
        "a_subscriber_resets_with_pending_messages",
        &[Kind::Hub],
        a_subscriber_resets_with_pending_messages,
    ),
    on("patterns", &[Kind::Hub], patterns),
    on("monitor", &[Kind::Hub], monitor),
    on("client_list", &[Kind::Hub], client_list),
    on("client_list_over_ipv6", &[Kind::Hub6], client_list_over_ipv6),
    on("client_kill", &[Kind::Hub], client_kill),
    on("client_kill_of_itself", &[Kind::Hub], client_kill_of_itself),
    on("info", &[Kind::Hub], info),
    on("quit", &[Kind::Hub], quit),
    on("reset_command", &[Kind::Hub], reset_command),
    on("bad_multibulk", &[Kind::Hub], bad_multibulk),
    on("shutdown_by_command", &[Kind::Hub], shutdown_by_command),
    // Clients of the web.
    on("an_http_request", &[Kind::Hub], an_http_request),
    on("requests_on_one_connection", &[Kind::Hub], requests_on_one_connection),
    on("a_message_over_websocket", &[Kind::Hub], a_message_over_websocket),
    on("a_message_in_fragments", &[Kind::Hub], a_message_in_fragments),
    on("a_slow_reader_of_websocket", &[Kind::Hub], a_slow_reader_of_websocket),
    on("server_sent_events", &[Kind::Hub], server_sent_events),
    // Deadlines.
    with("idle", &[Kind::Hub], idle_limits, idle),
    with(
        "idle_with_output_unacknowledged",
        &[Kind::Hub],
        idle_limits,
        idle_with_output_unacknowledged,
    ),
    with("no_first_message", &[Kind::Hub], first_limits, no_first_message),
    with("a_message_is_not_completed", &[Kind::Hub], message_limits, a_message_is_not_completed),
    with("unread_output", &[Kind::Echo], output_limits, unread_output),
    // Limits.
    with(
        "over_the_soft_limit_for_too_long",
        &[Kind::Hub],
        soft_limits,
        over_the_soft_limit_for_too_long,
    ),
    with("over_the_hard_limit", &[Kind::Hub], hard_limits, over_the_hard_limit),
    with("the_most_stalled_is_evicted", &[Kind::Echo], tight_budget, the_most_stalled_is_evicted),
    with("no_memory_for_more_input", &[Kind::Hello], tiny_budget, no_memory_for_more_input),
    // Admission.
    with(
        "the_oldest_silent_client_is_evicted",
        &[Kind::Hello],
        few_silent,
        the_oldest_silent_client_is_evicted,
    ),
    with("refused_when_full", &[Kind::Hub], few_slots, refused_when_full),
    with("many_refused_when_full", &[Kind::Hub], few_slots, many_refused_when_full),
    with("room_after_a_full_server", &[Kind::Hub], few_slots, room_after_a_full_server),
    with("a_source_at_its_share", &[Kind::Hello], small_share, a_source_at_its_share),
    with("the_longest_idle_makes_way", &[Kind::Hub], few_slots, the_longest_idle_makes_way),
    with(
        "the_operator_gets_a_slot_when_full",
        &[Kind::Hub, Kind::Operator],
        ten_slots,
        the_operator_gets_a_slot_when_full,
    ),
    on("out_of_files", &[Kind::Hello], out_of_files),
    on("out_of_memory_for_accepts", &[Kind::Hello], out_of_memory_for_accepts),
    on("accepts_that_fail_for_long", &[Kind::Hello], accepts_that_fail_for_long),
    with(
        "more_newcomers_than_a_turn_accepts",
        &[Kind::Hello],
        one_accept_a_turn,
        more_newcomers_than_a_turn_accepts,
    ),
    on("two_listeners", &[Kind::Hello, Kind::Echo], two_listeners),
    // Datagrams.
    datagrams("a_datagram", &[Kind::Hello], a_datagram),
    datagrams("more_datagrams_than_a_batch", &[Kind::Echo], more_datagrams_than_a_batch),
    datagrams(
        "an_answer_to_an_unreachable_source",
        &[Kind::Echo],
        an_answer_to_an_unreachable_source,
    ),
    datagrams("a_full_send_buffer", &[Kind::Echo], a_full_send_buffer),
    datagrams("an_icmp_error", &[Kind::Echo], an_icmp_error),
    datagrams("publish_by_datagram", &[Kind::Hub], publish_by_datagram),
    datagrams("two_sockets", &[Kind::Hello, Kind::Echo], two_sockets),
    // With every budget of a turn at its least, nearly all work is carried over.
    with("lines_with_least_budgets", &[Kind::Hello], least_budgets, more_lines_than_a_turn_takes),
    with("clients_with_least_budgets", &[Kind::Hello], least_budgets, several_clients_at_once),
    with("echo_with_least_budgets", &[Kind::Echo], least_budgets, echo_of_more_than_a_window),
    with("fan_out_with_least_budgets", &[Kind::Hub], least_budgets, fan_out_with_a_slow_subscriber),
    Scenario {
        limits: least_budgets,
        ..datagrams(
            "a_drain_with_least_budgets",
            &[Kind::Hello, Kind::Hub],
            a_drain_with_peers_of_all_states,
        )
    },
    // The operator.
    datagrams(
        "a_drain_with_peers_of_all_states",
        &[Kind::Hello, Kind::Hub],
        a_drain_with_peers_of_all_states,
    ),
    on("a_drain_until_its_timeout", &[Kind::Echo], a_drain_until_its_timeout),
    on("socket_options_change", &[Kind::Hello, Kind::Echo], socket_options_change),
];

/// The least budget of each phase of a turn.
fn least_budgets() -> Limits {
    Limits {
        accepts_per_turn: 1,
        connections_per_turn: 1,
        messages_per_turn: 8,
        reads_per_turn: 1,
        deliveries_per_turn: 1,
        expiries_per_turn: 1,
        ..limits()
    }
}

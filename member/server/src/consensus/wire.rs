//! openraft's messages as the peers' wire messages and back.

use std::io;

use bytes::Bytes;
use member_log::{Entry, LogId, Payload, TypeConfig, Vote};
use member_proto::peerpb;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

type C = TypeConfig;

/// A message that openraft cannot have sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("message lacks its {0}")]
    Missing(&'static str),
    #[error("membership is not valid")]
    Membership(#[source] serde_json::Error),
}

pub(crate) fn vote_out(vote: &Vote) -> peerpb::Vote {
    peerpb::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_in(vote: Option<peerpb::Vote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    })
}

pub(crate) fn log_id_out(id: &LogId) -> peerpb::LogId {
    peerpb::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(crate) fn log_id_in(id: peerpb::LogId) -> LogId {
    LogId {
        leader_id: id.term.into(),
        index: id.index,
    }
}

fn entry_out(entry: Entry) -> Result<peerpb::Entry, io::Error> {
    let payload = match entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(payload) => Some(peerpb::entry::Payload::Normal(payload.0)),
        EntryPayload::Membership(membership) => Some(peerpb::entry::Payload::Membership(
            Bytes::from(serde_json::to_vec(&membership)?),
        )),
    };
    let id = log_id_out(&entry.log_id);
    Ok(peerpb::Entry {
        term: id.term,
        index: id.index,
        payload,
    })
}

fn entry_in(entry: peerpb::Entry) -> Result<Entry, WireError> {
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(peerpb::entry::Payload::Normal(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(peerpb::entry::Payload::Membership(json)) => {
            EntryPayload::Membership(serde_json::from_slice(&json).map_err(WireError::Membership)?)
        }
    };
    Ok(Entry {
        log_id: log_id_in(peerpb::LogId {
            term: entry.term,
            index: entry.index,
        }),
        payload,
    })
}

pub(crate) fn append_out(
    request: AppendEntriesRequest<C>,
) -> Result<peerpb::AppendRequest, io::Error> {
    Ok(peerpb::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_out),
        committed: request.leader_commit.as_ref().map(log_id_out),
        entries: request
            .entries
            .into_iter()
            .map(entry_out)
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn append_in(
    request: peerpb::AppendRequest,
) -> Result<AppendEntriesRequest<C>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: request.previous.map(log_id_in),
        leader_commit: request.committed.map(log_id_in),
        entries: request
            .entries
            .into_iter()
            .map(entry_in)
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn appended_out(result: &StreamAppendResult<C>) -> peerpb::AppendResponse {
    use peerpb::append_response::Result as Wire;
    let result = match result {
        Ok(last) => Wire::Matching(peerpb::Matching {
            last: last.as_ref().map(log_id_out),
        }),
        Err(StreamAppendError::Conflict(id)) => Wire::Conflict(log_id_out(id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_out(vote)),
    };
    peerpb::AppendResponse {
        result: Some(result),
    }
}

pub(crate) fn appended_in(
    response: peerpb::AppendResponse,
) -> Result<StreamAppendResult<C>, WireError> {
    use peerpb::append_response::Result as Wire;
    Ok(match response.result.ok_or(WireError::Missing("result"))? {
        Wire::Matching(matching) => Ok(matching.last.map(log_id_in)),
        Wire::Conflict(id) => Err(StreamAppendError::Conflict(log_id_in(id))),
        Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(Some(vote))?)),
    })
}

pub(crate) fn vote_request_out(request: &VoteRequest<C>) -> peerpb::VoteRequest {
    peerpb::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_in(request: peerpb::VoteRequest) -> Result<VoteRequest<C>, WireError> {
    Ok(VoteRequest {
        vote: vote_in(request.vote)?,
        last_log_id: request.last.map(log_id_in),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_response_out(response: &VoteResponse<C>) -> peerpb::VoteResponse {
    peerpb::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(log_id_out),
    }
}

pub(crate) fn vote_response_in(
    response: peerpb::VoteResponse,
) -> Result<VoteResponse<C>, WireError> {
    Ok(VoteResponse {
        vote: vote_in(response.vote)?,
        vote_granted: response.granted,
        last_log_id: response.last.map(log_id_in),
    })
}

pub(crate) fn transfer_out(request: &TransferLeaderRequest<C>) -> peerpb::TransferRequest {
    peerpb::TransferRequest {
        from: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_out),
    }
}

pub(crate) fn transfer_in(
    request: peerpb::TransferRequest,
) -> Result<TransferLeaderRequest<C>, WireError> {
    Ok(TransferLeaderRequest::new(
        vote_in(request.from)?,
        request.to,
        request.last.map(log_id_in),
    ))
}

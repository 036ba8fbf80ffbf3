//! Both ends of a connection of TCP.

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

const SHORT: Duration = Duration::from_millis(200);

fn state() -> Arc<State> {
    State::new(Arriving::new(&Budget::new(64)))
}

async fn pair(state: &Arc<State>) -> (TcpStream, Connection, Arc<Budget>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (stream, _) = listener.accept().await.expect("the same");
    let places = Budget::new(1);
    let place = places.hold(1).expect("room");
    let lingering = Budget::new(8);
    (peer, Connection::new(stream, Arc::clone(state), SHORT, SHORT, place, lingering), places)
}

/// Writes until the peer's buffer is full, and then no more can be written in time.
async fn write_to_end(connection: &mut Connection) -> io::Error {
    loop {
        if let Err(error) = connection.write_all(&vec![0; 64 << 10]).await {
            return error;
        }
    }
}

#[tokio::test]
async fn who_takes_nothing_is_given_up() {
    let state = state();
    let (peer, mut connection, _) = pair(&state).await;
    state.begin();
    assert_eq!(write_to_end(&mut connection).await.kind(), io::ErrorKind::TimedOut);
    drop(peer);
}

#[tokio::test]
async fn who_is_slow_is_not() {
    const BYTES: usize = 24 << 20;
    let state = state();
    let (mut peer, mut connection, _) = pair(&state).await;
    state.begin();
    let slow = tokio::spawn(async move {
        let (mut taken, mut buffer) = (0, vec![0; 1 << 20]);
        while let Ok(count @ 1..) = peer.read(&mut buffer).await {
            taken += count;
            sleep(SHORT / 20).await;
        }
        taken
    });
    connection.write_all(&vec![0; BYTES]).await.expect("a peer that goes on reading");
    drop(connection);
    assert_eq!(slow.await.expect("the peer"), BYTES);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let state = state();
    let (mut peer, mut connection, _) = pair(&state).await;
    peer.write_all(b"GET / HT").await.expect("a part of it");
    let mut buffer = [0; 64];
    assert_eq!(connection.read(&mut buffer).await.expect("the part"), 8);
    let error = connection.read(&mut buffer).await.expect_err("no more");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_has_asked_may_be_silent() {
    let state = state();
    let (mut peer, mut connection, _) = pair(&state).await;
    let mut buffer = [0; 64];
    // A whole request came in one piece, and nothing was read while it was in work.
    peer.write_all(b"request").await.expect("sent");
    assert_eq!(connection.read(&mut buffer).await.expect("it"), 7);
    state.begin();
    state.made(AnswerHeld::default());
    connection.flush().await.expect("sent");
    assert!(timeout(2 * SHORT, connection.read(&mut buffer)).await.is_err(), "idleness is not a head's time");
    peer.write_all(b"r").await.expect("sent");
    assert_eq!(connection.read(&mut buffer).await.expect("it"), 1);
    assert!(connection.read(&mut buffer).await.is_err(), "a second head is a head");
    // A socket may be silent for as long as its own rules say.
    state.begin();
    state.upgrade();
    state.made(AnswerHeld::default());
    connection.flush().await.expect("sent");
    assert_eq!(state.phase(), Phase::Upgraded);
    assert!(timeout(2 * SHORT, connection.read(&mut buffer)).await.is_err());
    // What it says has its bounds.
    peer.write_all(&[0; 64]).await.expect("sent");
    assert_eq!(connection.read(&mut buffer).await.expect("it"), 64);
    state.arriving().is_whole();
    peer.write_all(&[0; 65]).await.expect("sent");
    let mut bytes = 0;
    let error = loop {
        match connection.read(&mut buffer).await {
            Ok(count) => bytes += count,
            Err(error) => break error,
        }
        assert!(bytes <= 64);
    };
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
}

#[tokio::test]
async fn an_answer_is_in_work_until_it_is_sent() {
    let state = state();
    let (_peer, mut connection, _) = pair(&state).await;
    let answers = Budget::new(1);
    state.begin();
    state.made(AnswerHeld { request: None, answer: answers.hold(1) });
    // The next request was there already.
    state.begin();
    assert!(answers.is_full() && state.phase() == Phase::Busy);
    connection.flush().await.expect("sent");
    assert!(!answers.is_full() && state.phase() == Phase::Busy);
    state.made(AnswerHeld::default());
    assert_eq!(state.phase(), Phase::Busy);
    connection.flush().await.expect("sent");
    assert_eq!(state.phase(), Phase::Idle);
}

#[tokio::test]
async fn what_was_said_last_arrives_though_more_came() {
    for _ in 0..40 {
        let state = state();
        let (mut peer, mut connection, places) = pair(&state).await;
        state.begin();
        peer.write_all(&vec![1; 256 << 10]).await.expect("sent");
        connection.write_all(b"no").await.expect("said");
        drop(connection);
        peer.write_all(&vec![2; 256 << 10]).await.expect("it is still read");
        let mut words = Vec::new();
        peer.read_to_end(&mut words).await.expect("no reset");
        assert_eq!(words, b"no");
        assert!(places.is_full(), "its place is taken until then");
        drop(peer);
        let begin = Instant::now();
        while places.is_full() {
            assert!(begin.elapsed() < LINGER_MAX, "it ends with its peer");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn the_end_is_bounded_in_bytes() {
    let state = state();
    let (mut peer, mut connection, places) = pair(&state).await;
    state.begin();
    connection.write_all(b"no").await.expect("said");
    drop(connection);
    let mut sent = 0;
    while peer.write_all(&vec![0; 1 << 20]).await.is_ok() {
        sent += 1 << 20;
        assert!(sent <= 4 * LINGER_BYTES_MAX, "somebody reads for ever");
    }
    assert!(!places.is_full());
}

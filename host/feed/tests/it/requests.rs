//! How often a server is asked how far it is.

use std::time::Duration;

use convoke_feed::{Feed, FeedEvent, FeedOptions};
use convoke_postgres::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::SslMode;

use crate::harness::{PATIENCE, started};
use crate::refusals::{READY, identified, message, row, welcome};

const POSITION: u64 = 0x100;

/// A server of which the test plays the stream by hand.
async fn streaming(listener: &TcpListener) -> TcpStream {
    let (mut server, _) = listener.accept().await.unwrap();
    let facts = row(&["170002", "logical", "f", "f", ""]);
    let (slot, copy) = (row(&["slot", "0/100", "", ""]), message(b'W', &[0, 0, 0]));
    for answer in [welcome(), identified(), facts, READY.to_vec(), row(&["everything", "", ""]), slot, copy] {
        let _ = server.read(&mut [0; 4096]).await.unwrap();
        server.write_all(&answer).await.unwrap();
    }
    server
}

/// How many questions have come within a moment.
async fn questions(server: &mut TcpStream) -> usize {
    let mut questions = 0;
    let mut status = [0; 39];
    while tokio::time::timeout(Duration::from_millis(300), server.read_exact(&mut status)).await.is_ok() {
        assert_eq!((status[0], status[5]), (b'd', b'r'));
        questions += usize::from(status[38] == 1);
    }
    questions
}

async fn answer(server: &mut TcpStream, position: u64) {
    let mut body = b"k".to_vec();
    body.extend(position.to_be_bytes());
    body.extend([0; 9]);
    server.write_all(&message(b'd', &body)).await.unwrap();
}

#[tokio::test]
async fn one_question_is_on_its_way_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new();
    config.ssl_mode(SslMode::Disable).host("127.0.0.1").port(listener.local_addr().unwrap().port());
    config.user("app").dbname("app");
    // No question of the feed's own comes in between.
    let options = FeedOptions { status_interval: Duration::from_mins(1), ..FeedOptions::new(config) };
    let mut feed = Feed::start(options).subscribe("everything", "public");
    let mut server = streaming(&listener).await;
    assert_eq!(started(&mut feed).await.position, POSITION);
    let asking = feed.position_request();
    let ask_often = async || {
        for _ in 0..100 {
            asking.send();
            tokio::task::yield_now().await;
        }
    };
    ask_often().await;
    assert_eq!(questions(&mut server).await, 1, "one for all");
    ask_often().await;
    assert_eq!(questions(&mut server).await, 0, "there is no answer yet");
    answer(&mut server, POSITION + 8).await;
    assert_eq!(questions(&mut server).await, 1, "one for all who asked behind the first");
    answer(&mut server, POSITION + 16).await;
    assert_eq!(questions(&mut server).await, 0);
    let position = tokio::time::timeout(PATIENCE, feed.next()).await.unwrap();
    assert!(matches!(position, Some(FeedEvent::Position(position)) if position == POSITION + 16), "the newest only");
}

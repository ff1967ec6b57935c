//! A mail server that fails on demand, and keeps what it took.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What it does with mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Take,
    /// 451 at RCPT.
    Busy,
    /// 550 at RCPT.
    Refuse,
    /// 550 at MAIL: nobody may send.
    RefuseSender,
    /// Takes the mail, and is gone before it says so.
    TakeAndVanish,
    /// Says nothing at all.
    Silent,
}

/// A mail that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub from: String,
    pub to: String,
    pub content: Vec<u8>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    taken: Vec<Taken>,
    connections: usize,
    open: usize,
    most_open: usize,
}

pub struct MailServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

impl MailServer {
    pub fn start() -> Self {
        let state = State { mode: Mode::Take, taken: Vec::new(), connections: 0, open: 0, most_open: 0 };
        let port = xtask::ports::free_port().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { address, state: Arc::new(Mutex::new(state)), accepting: None };
        server.up();
        server
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// Listens (again) where it did.
    pub fn up(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.state))));
    }

    /// Refuses connections, and cuts those that are open.
    pub async fn down(&mut self) {
        let accepting = self.accepting.take().unwrap();
        accepting.abort();
        drop(accepting.await);
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }

    /// Connections so far, and the most that were open at a time.
    pub fn connections(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.connections, state.most_open)
    }
}

impl Taken {
    pub fn id(&self) -> String {
        mail_parser::MessageParser::default().parse(&self.content).unwrap().message_id().unwrap().to_owned()
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut sessions = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        {
            let mut state = state.lock().unwrap();
            state.connections += 1;
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
        }
        let state = Arc::clone(&state);
        sessions.spawn(async move {
            // A connection that broke is the client's to tell of.
            let _ = serve(stream, &state).await;
            state.lock().unwrap().open -= 1;
        });
    }
}

async fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mode = || state.lock().unwrap().mode;
    let mut stream = BufReader::new(stream);
    if mode() == Mode::Silent {
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {}
        return Ok(());
    }
    let (mut from, mut to) = (String::new(), String::new());
    let mut reply = "220 lab".to_owned();
    loop {
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = || line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned());
        reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => "250-lab\r\n250 8BITMIME".into(),
            "MAIL" if mode() == Mode::RefuseSender => "550 5.7.1 you may not send".into(),
            "MAIL" => {
                from = path().unwrap_or_default();
                "250 ok".into()
            }
            "RCPT" if mode() == Mode::Busy => "451 4.7.1 greylisted".into(),
            "RCPT" if mode() == Mode::Refuse => "550 5.1.1 no such user".into(),
            "RCPT" => {
                to = path().unwrap_or_default();
                "250 ok".into()
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let content = read_content(&mut stream).await?;
                state.lock().unwrap().taken.push(Taken { from: from.clone(), to: to.clone(), content });
                if mode() == Mode::TakeAndVanish {
                    return Ok(());
                }
                "250 taken".into()
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => "500 what".into(),
        };
    }
}

async fn read_content(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

package main

func sudoMain([]string) int { return 1 }

type sudoServer struct{}

func newSudoServer(string, *accounts, *reaper, *launcher) *sudoServer { return &sudoServer{} }
func (*sudoServer) open(a, b account) error                           { return nil }

package bench

func (b *bench) hints()    {}
func (b *bench) pull()     {}
func (b *bench) summary()  {}
func (b *bench) receipts() {}
func (b *bench) comeBack() {}
func (b *bench) imports()  {}
